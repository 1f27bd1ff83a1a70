//! What the compiler refuses.

/// Each program of `tests/refused` is refused for the reason that lies beside it; the other one, which is the same but for that, compiles.
#[test]
fn a_deployment_without_a_permit_of_its_own_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/refused/with_a_permit.rs");
    cases.compile_fail("tests/refused/no_*.rs");
}
