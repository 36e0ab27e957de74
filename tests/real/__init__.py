"""A bundle of the environment that really serves, 5 GB of wheels: made and tried by hand, never in CI."""
