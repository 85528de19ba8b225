"""Networks: one file is one network, its named sizes stand at its foot."""
