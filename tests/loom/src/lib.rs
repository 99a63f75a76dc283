//! All interleavings of a lane and its bell. Run it with
//! `RUSTFLAGS="--cfg loom" cargo test --release --manifest-path tests/loom/Cargo.toml`

#[path = "../../../src/io/bridge"]
#[allow(dead_code)]
mod bridge {
    pub mod lane;
    mod sync;
    pub mod wake;
}

#[cfg(all(test, loom))]
mod tests {
    use crate::bridge::{lane::lane, wake::Sleeping};
    use loom::sync::{Arc, Notify};
    use loom::thread;

    #[test]
    fn items_arrive_in_order_and_once() {
        loom::model(|| {
            let (mut sender, mut receiver) = lane(2);
            let producer = thread::spawn(move || {
                for mut item in 0..3 {
                    while let Err(back) = sender.push(item) {
                        item = back;
                        thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < 3 {
                match receiver.pop() {
                    Some(item) => {
                        assert_eq!(item, next);
                        next += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            producer.join().unwrap();
        });
    }

    /// A lost wake-up is a thread that waits for ever: loom reports the deadlock.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let (mut sender, mut receiver) = lane(2);
            let sleeping = Arc::new(Sleeping::new());
            let bell = Arc::new(Notify::new());
            let producer = {
                let (sleeping, bell) = (sleeping.clone(), bell.clone());
                thread::spawn(move || {
                    for item in 0..2 {
                        sender.push(item).expect("the lane holds two");
                        if sleeping.must_wake() {
                            bell.notify();
                        }
                    }
                })
            };
            let mut taken = 0;
            while taken < 2 {
                taken += receiver.drain(2, |_| ());
                if taken < 2 && sleeping.may_wait(|| !receiver.is_empty()) {
                    bell.wait();
                    sleeping.awake();
                }
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn two_producers_wake_one_consumer() {
        // Three threads have too many interleavings to play them all: those with at most three preemptions.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sleeping = Arc::new(Sleeping::new());
            let bell = Arc::new(Notify::new());
            let mut receivers = Vec::new();
            let mut producers = Vec::new();
            for _ in 0..2 {
                let (mut sender, receiver) = lane(1);
                receivers.push(receiver);
                let (sleeping, bell) = (sleeping.clone(), bell.clone());
                producers.push(thread::spawn(move || {
                    sender.push(()).expect("the lane holds one");
                    if sleeping.must_wake() {
                        bell.notify();
                    }
                }));
            }
            let mut taken = 0;
            while taken < 2 {
                for receiver in &mut receivers {
                    taken += receiver.drain(1, |()| ());
                }
                if taken < 2 && sleeping.may_wait(|| receivers.iter_mut().any(|receiver| !receiver.is_empty())) {
                    bell.wait();
                    sleeping.awake();
                }
            }
            for producer in producers {
                producer.join().unwrap();
            }
        });
    }
}
