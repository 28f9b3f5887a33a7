//! The server from outside, over a socket.
