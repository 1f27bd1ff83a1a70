//! Settings, rights and certificates: what is wrong is refused, with the way out.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_name_the_way_out() {
    let server = Redis::start(RedisOptions {
        password: Some(PASSWORD.into()),
        append_fsync: Some("everysec"),
        ..RedisOptions::default()
    });
    let good = config(server.url()).with_durability(Durability::EverySecond);
    let store = RedisUtxoStore::open(good.clone()).await.unwrap();
    assert!(!format!("{good:?} {store:?}").contains(PASSWORD));

    let port = server.port();
    for url in [
        format!("redis://:{PASSWORD}@127.0.0.1:notaport/0"),
        format!("redis://:{PASSWORD}@127.0.0.1:{port}/{PASSWORD}"),
        format!("postgres://:{PASSWORD}@127.0.0.1:{port}/0"),
        format!("unix:///{PASSWORD}"),
        PASSWORD.into(),
        String::new(),
    ] {
        refused(
            good.clone().with_url(url.into()),
            "rediss://user:password@host",
        )
        .await;
    }
    let wrong = Some(Secret::from("wrong"));
    let error = refused(good.clone().with_password(wrong), "user or password").await;
    assert_eq!(error.retryability(), Retryability::Permanent);
    let bare = format!("redis://127.0.0.1:{port}/0");
    refused(
        good.clone().with_url(bare.clone().into()),
        "user or password",
    )
    .await;
    let apart = good.clone().with_url(bare.into());
    let apart = apart.with_password(Some(PASSWORD.into()));
    drop(RedisUtxoStore::open(apart).await.unwrap());

    refused(good.clone().with_tls(Tls::Verify), "rediss://").await;
    let secure = server.url().replace("redis:", "rediss:");
    let secure = good.clone().with_url(secure.into());
    refused(secure.clone(), "set it to verify").await;
    let secure = secure.with_tls(Tls::Verify);
    let file = Some("/nowhere.pem".into());
    refused(secure.clone().with_tls_authorities(file), "PEM").await;
    let insecure = format!("rediss://:{PASSWORD}@127.0.0.1:{port}/0#insecure");
    refused(secure.with_url(insecure.into()), "tls_authorities").await;

    let nobody = good.clone().with_url(server.url_at(1).into());
    let error = refused(nobody, "connect").await;
    assert_eq!(error.retryability(), Retryability::Transient);
    refused(
        good.clone().with_durability(Durability::Always),
        "appendfsync always",
    )
    .await;
    let error = refused(
        good.clone().with_prefix("other".into()).with_create(false),
        "other",
    )
    .await;
    assert!(matches!(error, Error::NotFound { .. }));
    let rule = groundtackle_utxo_store::UnspendableRule::FalseReturn;
    refused(good.clone().with_unspendable(rule), "fixed").await;

    // Whoever may drop records is refused, at once and later.
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refused(good.clone(), "noeviction").await;
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(
        !health.ready && health.reasons[0].contains("noeviction"),
        "{health:?}"
    );
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);

    server.command(&["HSET", "{groundtackle}:settings", "format", "99"]);
    let error = refused(good.clone(), "use a newer version").await;
    assert!(matches!(error, Error::NewerFormat { found: 99, .. }));
    let health = store.health(HealthDepth::Readiness).await.unwrap();
    assert!(
        !health.ready && health.reasons[0].contains("99"),
        "{health:?}"
    );
}

/// The rights that README.md names are enough; without one of them the error says so.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_those_of_the_readme() {
    let server = Redis::start(RedisOptions {
        password: Some(PASSWORD.into()),
        append_fsync: Some("always"),
        ..RedisOptions::default()
    });
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|line| line.starts_with("ACL SETUSER"));
    let line = line
        .expect("README.md has it")
        .replace("PASSWORD", PASSWORD);
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(server.command(&words), "+OK\r\n");
    let url = server.url().replace("redis://:", "redis://groundtackle:");
    let ours = config(url).with_durability(Durability::Always);
    let store = RedisUtxoStore::open(ours.clone()).await.unwrap();
    store.set_tip(&tip()).await.unwrap();
    let coin = coins(&store, 1, 1).await[0];
    spend(&store, spender(2, coin)).await.unwrap();
    store.prune(10).await.unwrap();
    store.unmined(None, None, 10).await.unwrap();
    store.recover().await.unwrap();
    store.flush().await.unwrap();
    assert!(store.health(HealthDepth::Readiness).await.unwrap().ready);
    assert_sound(&store).await;

    let error = refused(ours.clone().with_prefix("theirs".into()), "lacks rights").await;
    assert_eq!(error.retryability(), Retryability::Permanent);
    // Who may not ask for settings can be trusted instead.
    server.command(&["ACL", "SETUSER", "groundtackle", "-config"]);
    refused(ours.clone(), "trust_server_settings").await;
    let trusting = ours.with_trust_server_settings(true);
    drop(RedisUtxoStore::open(trusting.clone()).await.unwrap());
    // Nothing is begun that can't be finished, and what another version began is taken away.
    let listed = store.unmined(None, None, 10).await.unwrap();
    server.command(&["ZADD", "{groundtackle}:unmined", "0", "probe"]);
    assert!(store.unmined(None, None, 10).await.is_err());
    drop(RedisUtxoStore::open(trusting.clone()).await.unwrap());
    assert_eq!(store.unmined(None, None, 10).await.unwrap(), listed);
    for right in ["hset", "hdel", "zadd", "zrem", "bitfield", "evalsha"] {
        server.command(&["ACL", "SETUSER", "groundtackle", &format!("-{right}")]);
        let error = refused(trusting.clone(), "lacks rights").await;
        assert_eq!(error.retryability(), Retryability::Permanent, "{right}");
        let health = store.health(HealthDepth::Readiness).await.unwrap();
        assert!(
            !health.ready && health.reasons[0].contains("lacks rights"),
            "{health:?}"
        );
        assert_eq!(store.unmined(None, None, 10).await.unwrap(), listed);
        server.command(&["ACL", "SETUSER", "groundtackle", &format!("+{right}")]);
    }
    server.command(&["ACL", "SETUSER", "groundtackle", "-evalsha"]);
    let error = store
        .create(&[TxBuilder::new(9).pay(1).seed(1)])
        .await
        .unwrap_err();
    assert!(shown(&error).contains("lacks rights"), "{error:?}");
}

/// A config reads from any serde format, refuses unknown keys, and does not show its secrets.
#[test]
fn a_config_reads_as_text() {
    let text = format!(
        r#"{{"url": "rediss://u:{PASSWORD}@h/0", "password": "{PASSWORD}", "durability": "every-second",
            "answer_timeout": "3s", "max_write": "64MiB"}}"#
    );
    let config: RedisUtxoStoreConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(config.answer_timeout, Duration::from_secs(3));
    assert_eq!(config.max_write, ByteSize::mib(64));
    assert_eq!(config.durability, Durability::EverySecond);
    assert_eq!(config.password, Some(PASSWORD.into()));
    assert!(!format!("{config:?}").contains(PASSWORD));
    assert!(serde_json::from_str::<RedisUtxoStoreConfig>(r#"{"ulr": ""}"#).is_err());
    let default = RedisUtxoStoreConfig::default();
    assert_eq!(
        (default.tls, default.durability),
        (Tls::Verify, Durability::Always)
    );
}

/// A certificate of the authority that the config names, for the name in the URL, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn tls_verifies_authority_and_name() {
    let made = Certificates::new();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let settings = [
        ("bind", "127.0.0.1 127.0.0.2".to_owned()),
        ("tls-port", port.to_string()),
        ("tls-cert-file", text(made.server())),
        ("tls-key-file", text(made.key())),
        ("tls-ca-cert-file", text(made.authority())),
        ("tls-auth-clients", "no".to_owned()),
    ];
    let server = Redis::start(RedisOptions {
        password: Some(PASSWORD.into()),
        settings: settings
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        ..RedisOptions::default()
    });
    let url = |host: &str| format!("rediss://:{PASSWORD}@{host}:{port}/0").into();
    let good = config(server.url())
        .with_tls(Tls::Verify)
        .with_url(url("127.0.0.1"))
        .with_tls_authorities(Some(made.authority()));
    let store = RedisUtxoStore::open(good.clone()).await.unwrap();
    let coin = coins(&store, 1, 1).await[0];
    spend(&store, spender(2, coin)).await.unwrap();
    refused(good.clone().with_tls_authorities(None), "tls_authorities").await;
    refused(good.clone().with_url(url("127.0.0.2")), "TLS").await;
    let other = Certificates::new();
    refused(good.with_tls_authorities(Some(other.authority())), "TLS").await;
}
