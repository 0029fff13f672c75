"""Compiled inner loops: arrays in, arrays out, serial, without the GIL."""
