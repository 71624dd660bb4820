"""The processes of a run: who they are, how they start, exchange messages, watch each other and end."""
