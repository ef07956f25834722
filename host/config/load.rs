//! Reads a config file and says what is wrong with it: the key, the file, the nearest valid key.
