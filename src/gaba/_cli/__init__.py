"""The commands of ``gaba.cli``: what each takes, does and prints."""
