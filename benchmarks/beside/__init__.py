"""The language model pruned by the library and by llm-compressor, turn by turn on the same windows and threads."""
