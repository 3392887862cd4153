"""What this machine is: its devices, its memory, and what is installed on it."""
