"""How the processes of a run that trains on several devices come to be, find each other, and end together."""
