"""One file a dialect: parse what routing needs, render errors."""
