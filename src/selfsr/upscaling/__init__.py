"""Running a model on pictures and files of any size, in the memory there is."""
