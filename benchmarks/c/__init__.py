"""The C engine on this machine and on microcontrollers."""
