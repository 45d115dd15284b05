//! A backend: all services in one process, or one service in a process of its own.

mod admin;
mod all;
mod engine;
mod parts;
mod single;
mod start;
mod status;
mod web;

pub(crate) use self::{
    admin::{Offline, answers, store_opens},
    all::run as all,
    engine::migrate,
    single::run as single,
    start::capabilities,
    web::run as web,
};
