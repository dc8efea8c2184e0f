//! What `guard!` is told may be a constant, or come from whoever builds the program: `env!`.

const RESERVE: &str = "2MiB";

const LIMIT: &str = concat!(env!("CARGO_PKG_VERSION_MINOR"), "GiB");

oomguard::guard!(limit = LIMIT, reserve = RESERVE, measure = data);

#[test]
fn the_limit_is_what_the_constant_says() {
    let status = oomguard::status();
    assert_eq!(status.limit, Some(1 << 30), "{status:?}");
    assert_eq!(status.source, Some(oomguard::LimitSource::Source));
    assert!(oomguard::on_pressure(1.0, || ()).unwrap(), "there is a limit to watch");
}
