//! sd_notify(3), WATCHDOG=1: told to the service manager by the services thread, and only while every core answers. A core that is
//! stuck for longer than the unit's WatchdogSec= gets the process started anew.

use super::control::{Mailbox, MediaOrder, Process};
use super::signalling::lanes::Order;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Whom the watchdog asks.
#[derive(Clone)]
pub struct Cores {
    pub signalling: Vec<Arc<Mailbox<Order>>>,
    pub media: Vec<Arc<Mailbox<MediaOrder>>>,
}

/// How long the service manager waits for a sign of life, where it waits for one.
pub fn patience() -> Option<Duration> {
    let mut micros = 0;
    let ours = match std::env::var_os("WATCHDOG_PID") {
        Some(_) => sd_notify::watchdog_enabled(false, &mut micros),
        // sd_watchdog_enabled(3): without it the time is for whoever reads it: a process that took over.
        None => std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).map(|read| micros = read).is_some(),
    };
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}

/// Tells the service manager again and again that all is well, twice in the time it waits; ends with the runtime.
/// A process that was taken over from is none of its concern.
pub async fn watch(cores: Cores, process: Process, patience: Duration) {
    let half = patience / 2;
    loop {
        if process.is_handed_on() {
            tokio::time::sleep(half).await;
            continue;
        }
        if cores.answer(half).await {
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]);
        } else {
            tracing::error!("a core does not answer; the service manager is told nothing");
        }
        tokio::time::sleep(half).await;
    }
}

impl Cores {
    /// Whether every core answers within a time.
    async fn answer(&self, within: Duration) -> bool {
        let mut asked = Vec::with_capacity(self.signalling.len() + self.media.len());
        for mailbox in &self.signalling {
            let (reply, answer) = oneshot::channel();
            mailbox.post(Order::Ping(reply));
            asked.push(answer);
        }
        for mailbox in &self.media {
            let (reply, answer) = oneshot::channel();
            mailbox.post(MediaOrder::Ping(reply));
            asked.push(answer);
        }
        let all = async {
            for answer in asked {
                if answer.await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(within, all).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(body);
    }

    #[test]
    fn cores_that_all_answer_are_well_and_one_that_does_not_is_not() {
        run(async {
            let (signalling, media) = (Mailbox::new(|| {}), Mailbox::new(|| {}));
            let cores = Cores { signalling: vec![signalling.clone()], media: vec![media.clone()] };
            let serve = async {
                loop {
                    if let Some(Order::Ping(reply)) = signalling.take() {
                        let _ = reply.send(());
                    }
                    if let Some(MediaOrder::Ping(reply)) = media.take() {
                        let _ = reply.send(());
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                well = cores.answer(Duration::from_secs(20)) => assert!(well),
                () = serve => {}
            }
            assert!(!cores.answer(Duration::ZERO).await, "nobody takes the orders now");
        });
    }
}
