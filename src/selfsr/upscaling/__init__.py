"""Run a model on images and files of any size, within the available memory."""
