//! `cpm-pf demo`: the real proxy and two clients on loopback.

/// `demo`'s options.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Octets of the large message: "100MiB".
    #[arg(long, default_value = "100MiB")]
    pub size: String,
}

/// Runs the demonstration; answers the exit code.
pub fn run(options: &Options) -> u8 {
    tracing::error!(?options, "not built in yet");
    1
}
