//! End-to-end tests: the real binaries as processes. One binary, so that it is linked once; a
//! module a topic.

mod activation;
mod cli;
mod cookbook;
mod corpus;
mod crash;
mod damage;
mod differences;
mod enroll;
mod errors;
mod faults;
mod floors;
mod grpc;
mod hung;
mod idle;
mod keys;
mod large;
mod paging;
mod readme;
mod reload;
mod start;
mod truth;
mod versions;
