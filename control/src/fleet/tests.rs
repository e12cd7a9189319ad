//! Who shares a call, and what becomes of the login nodes that were asked.

use futures_util::FutureExt;

use super::*;
use crate::config::PartialListings;

const HOUR: Duration = Duration::from_secs(3600);

/// No clusters; one failure opens a breaker.
fn fleet() -> Arc<Fleet> {
    fleet_with(1)
}

/// The same where so many failures in a row do.
fn fleet_with(breaker_failures: u32) -> Arc<Fleet> {
    let settings = AgentSettings {
        answer_within: 12 * HOUR,
        connect_timeout: HOUR,
        hedge_after: 4 * HOUR,
        breaker_failures,
        breaker_open: HOUR,
        breaker_open_max: HOUR,
        partial_listings: PartialListings::Refuse,
        tls: None,
    };
    Fleet::new(Arc::new(FileRegistry::default()), settings, Arc::default())
}

/// An attempt at a login node, and the breaker that has given leave.
fn attempt(fleet: &Fleet) -> (Attempt, Arc<Breaker>) {
    let address = NodeAddress::parse("127.0.0.1:1", false).unwrap();
    let node = Arc::new(Node::new(&address, &fleet.settings, None).unwrap());
    let breaker = Arc::clone(node.breaker());
    let permit = breaker.acquire(Instant::now()).unwrap();
    (Attempt::new(node, permit), breaker)
}

fn cluster() -> Arc<ClusterSettings> {
    Arc::new(ClusterSettings {
        id: "c".into(),
        account: "1".into(),
        region: "r".into(),
        login_nodes: Vec::new(),
    })
}

fn request(page_number: u32, page_size: u32) -> ListContainerImages {
    ListContainerImages {
        cluster_id: "c".into(),
        page_number,
        page_size,
    }
}

#[test]
fn only_those_who_ask_for_the_same_share_a_call() {
    let (one, other) = (cluster(), cluster());
    let key =
        |cluster, page_number, page_size| PageKey::new(cluster, &request(page_number, page_size));
    assert!(key(&one, 1, 10) == key(&one, 1, 10));
    for different in [key(&one, 2, 10), key(&one, 1, 20), key(&other, 1, 10)] {
        assert!(key(&one, 1, 10) != different);
    }
}

#[tokio::test]
async fn silence_counts_against_who_had_time_to_answer() {
    let fleet = fleet();
    for (hedge_after, expected) in [
        (Duration::ZERO, BreakerState::Open),
        (HOUR, BreakerState::Closed),
    ] {
        let (attempt, breaker) = attempt(&fleet);
        fleet.give_up_slow(vec![attempt], hedge_after);
        assert_eq!(breaker.state(), expected, "{hedge_after:?}");
    }
}

#[tokio::test]
async fn who_says_what_is_wrong_is_asked_again() {
    let (fleet, cluster) = (fleet(), cluster());
    let context = CallContext {
        request_id: "",
        deadline: Instant::now(),
    };
    for (failure, expected) in [
        (Failure::Timeout, BreakerState::Open),
        (Failure::NotReady(String::new()), BreakerState::Closed),
        (Failure::ScanFailed(String::new()), BreakerState::Closed),
    ] {
        let (mut attempt, breaker) = attempt(&fleet);
        let settled = fleet.settle(&mut attempt, Err(failure.clone()), &cluster, context);
        assert_eq!(settled.err(), Some(failure.clone()));
        assert_eq!(breaker.state(), expected, "{failure:?}");
    }
}

#[tokio::test]
async fn who_answers_between_two_failures_has_not_failed_twice() {
    let (fleet, cluster) = (fleet_with(2), cluster());
    let context = CallContext {
        request_id: "",
        deadline: Instant::now(),
    };
    let (attempt, breaker) = attempt(&fleet);
    let node = Arc::clone(&attempt.node);
    drop(attempt);
    let said = || Failure::NotReady(String::new());
    for (failure, expected) in [
        (Failure::Timeout, BreakerState::Closed),
        (said(), BreakerState::Closed),
        (Failure::Timeout, BreakerState::Closed),
        (Failure::Timeout, BreakerState::Open),
    ] {
        let permit = breaker.acquire(Instant::now()).unwrap();
        let mut attempt = Attempt::new(Arc::clone(&node), permit);
        let settled = fleet.settle(&mut attempt, Err(failure.clone()), &cluster, context);
        assert_eq!(settled.err(), Some(failure));
        assert_eq!(breaker.state(), expected);
    }
}

#[tokio::test]
async fn who_fails_is_not_waited_for() {
    let fleet = fleet();
    // Nobody listens there. Each is asked in its turn, which would come after hours.
    let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    let login_nodes = addresses.map(|address| NodeAddress::parse(address, false).unwrap());
    let cluster = Arc::new(ClusterSettings {
        login_nodes: login_nodes.to_vec(),
        ..(*cluster()).clone()
    });
    let request = request(1, 10);
    let context = CallContext {
        request_id: "",
        deadline: Instant::now() + HOUR,
    };
    let listing = fleet.list(&cluster, &request, context);
    let listing = tokio::time::timeout(Duration::from_secs(30), listing).await;
    let result = listing.expect("nobody is left to wait for").result;
    assert_eq!(result.map(drop), Err(ApiError::AgentError));
    for address in &login_nodes {
        let node = fleet.node(address).unwrap();
        assert_eq!(node.breaker().state(), BreakerState::Open, "{address}");
    }
}

#[tokio::test]
async fn a_probe_that_finds_nobody_is_no_answer() {
    let fleet = fleet();
    let (attempt, breaker) = attempt(&fleet);
    attempt.permit.unwrap().failed(Instant::now());
    let permit = breaker.acquire_early().unwrap();
    fleet.probe(attempt.node, permit).await;
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_another_finds_out_waits_for_a_moment() {
    for (is_back, budget, expected) in [
        (true, HOUR, BreakerState::Open),
        (false, HOUR, BreakerState::HalfOpen),
        // There is no time for that.
        (true, MOMENT / 4, BreakerState::Closed),
    ] {
        let fleet = fleet();
        // Nobody listens there: once it has been asked, its breaker is open again.
        let address = NodeAddress::parse("127.0.0.1:1", false).unwrap();
        let node = fleet.node(&address).unwrap();
        node.breaker()
            .acquire_early()
            .unwrap()
            .failed(Instant::now());
        let permit = node.breaker().acquire_early().unwrap();
        let cluster = Arc::new(ClusterSettings {
            login_nodes: vec![address],
            ..(*cluster()).clone()
        });
        let request = request(1, 10);
        let context = CallContext {
            request_id: "",
            deadline: Instant::now() + budget,
        };
        let (listing, _permit) = tokio::join!(fleet.list(&cluster, &request, context), async {
            tokio::time::sleep(MOMENT / 2).await;
            if is_back {
                permit.succeeded();
                return None;
            }
            Some(permit)
        });
        assert_eq!(listing.result.map(drop), Err(ApiError::AgentError));
        assert_eq!(node.breaker().state(), expected, "{is_back} {budget:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_left_alone_is_not_looked_for_before_the_time_is_up() {
    let fleet = fleet();
    let address = NodeAddress::parse("127.0.0.1:1", false).unwrap();
    let node = fleet.node(&address).unwrap();
    let permit = node.breaker().acquire_early().unwrap();
    permit.failed(Instant::now());
    tokio::time::sleep(10 * LOOK_EVERY).await;
    assert_eq!(node.breaker().state(), BreakerState::Open);
    let metrics = fleet.metrics.render(Vec::new());
    assert!(!metrics.contains("127.0.0.1:1"), "{metrics}");
}

#[test]
fn the_last_of_many_has_as_much_time_as_the_others() {
    let fleet = fleet();
    for (nodes, hours) in [(1, 4), (2, 4), (3, 3), (5, 2), (11, 1)] {
        assert_eq!(fleet.hedge_after(nodes), hours * HOUR, "{nodes}");
    }
}

#[tokio::test]
async fn nothing_waits_for_a_tick_of_the_timer() {
    assert_eq!(pause(None).now_or_never(), Some(()));
    let later = tokio::time::Instant::now() + Duration::from_secs(60);
    assert_eq!(pause(Some(later)).now_or_never(), None);
}
