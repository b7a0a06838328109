"""Students without torch: what an exported file is enough for."""
