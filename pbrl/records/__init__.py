"""What a run leaves behind: its folder, checkpoints, where it ran; and Ctrl-C at the right moment."""
