"""What travels so that bundler itself runs where no Python is: its archive, ``install.sh``, launchers."""
