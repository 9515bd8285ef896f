"""What a run leaves on disk, and whether it still belongs to what is asked for."""
