"""The tests stand in the same rooms as what they test; `test_house` judges the house, `test_lifecycle` tells its story."""
