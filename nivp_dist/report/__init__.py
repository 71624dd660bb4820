"""What a run says and shows: progress while it runs, tables and pictures from its directory."""
