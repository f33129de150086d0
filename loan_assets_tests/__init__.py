"""The tests stand in the same rooms as what they test; `test_lifecycle` tells the whole story."""
