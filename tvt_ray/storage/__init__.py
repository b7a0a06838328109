"""Files that appear whole or not at all, here or on any filesystem that pyarrow knows; locks; tables in parts."""
