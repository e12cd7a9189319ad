//! The control plane over HTTP, with agents in this process that do as they are told.
//!
//! * `support/` – agents, the server under test, a plain HTTP client
//! * `call` – the command `call` against a server
//! * `cli` – the commands of the binary beside `call` and `serve`
//! * `serve` – the server as a process
//! * `errors` – every documented error, by the state that causes it
//! * `replies` – the reply on the wire, and what agents are asked
//! * `failover` – several login nodes, some of them slow, silent or gone
//! * `http` – what the HTTP layer refuses, and how
//! * `lifecycle` – reload, drain
//! * `limits` – what protects the server from its clients, and them from each other
//! * `signed` – keys and policies, seen from outside
//! * `tls` – HTTPS and mutual TLS to the agents
//! * `fleet_of_many` – a thousand clusters, a third of them in trouble

mod call;
mod cli;
mod errors;
mod failover;
mod fleet_of_many;
mod http;
mod lifecycle;
mod limits;
mod replies;
mod serve;
mod signed;
mod support;
mod tls;
