mod contents;
mod hostile;
mod reader;
mod support;
mod volumes;
mod writer;
