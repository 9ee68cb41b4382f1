"""How good is a score at telling human pairs from broken ones?"""
