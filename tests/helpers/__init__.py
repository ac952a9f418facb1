"""What several tests share, and the searches of ``tests/fuzz`` too. Nothing in here uses the package under test."""
