"""The same fits given to nagcore and to its peers: `python -m bench.peers` from the project's folder."""
