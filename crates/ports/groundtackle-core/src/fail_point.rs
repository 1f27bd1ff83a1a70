//! Write points at which a test kills the process.

/// Dies here, without unwinding or flushing, if the environment names this point: `GROUNDTACKLE_TEST_FAIL_POINT` is
/// `NAME:N`, for the Nth time that the process comes by. Only with the feature `__fail_points`, which adapters'
/// tests turn on.
#[doc(hidden)]
#[inline]
pub fn fail_point(name: &str) {
    #[cfg(feature = "__fail_points")]
    armed::reach(name);
    #[cfg(not(feature = "__fail_points"))]
    let _ = name;
}

#[cfg(feature = "__fail_points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{env, process};

    struct Point {
        name: String,
        left: AtomicU32,
    }

    static POINT: LazyLock<Option<Point>> = LazyLock::new(|| {
        let text = env::var("GROUNDTACKLE_TEST_FAIL_POINT").ok()?;
        let (name, times) = text.rsplit_once(':')?;
        Some(Point {
            name: name.into(),
            left: AtomicU32::new(times.parse().ok()?),
        })
    });

    pub(super) fn reach(name: &str) {
        if let Some(point) = POINT.as_ref().filter(|point| point.name == name)
            && point.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            process::abort();
        }
    }
}
