"""What is wrong with a machine and with a data set, before a training finds out."""
