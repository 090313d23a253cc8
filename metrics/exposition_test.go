package metrics

// exposition is what a scraper sees after play. A change here is a change for every dashboard and alert.
const exposition = `# HELP pgwicket_accept_errors_total Failed accepts, for example for want of file descriptors; each is retried.
# TYPE pgwicket_accept_errors_total counter
pgwicket_accept_errors_total 1
# HELP pgwicket_backend_connect_duration_seconds Time to connect to the backend.
# TYPE pgwicket_backend_connect_duration_seconds histogram
pgwicket_backend_connect_duration_seconds_bucket{le="0.0002"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.0005"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.001"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.0025"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.005"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.01"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.025"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.05"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.1"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.25"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="0.5"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="1"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="2.5"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="5"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="10"} 1
pgwicket_backend_connect_duration_seconds_bucket{le="+Inf"} 1
pgwicket_backend_connect_duration_seconds_sum 0.0001
pgwicket_backend_connect_duration_seconds_count 1
# HELP pgwicket_build_info Build of the running pgwicket; always 1.
# TYPE pgwicket_build_info gauge
pgwicket_build_info{goversion="GO",version="v1.2.3"} 1
# HELP pgwicket_cancel_requests_total CancelRequests from allowed sources, by outcome.
# TYPE pgwicket_cancel_requests_total counter
pgwicket_cancel_requests_total{outcome="forwarded"} 1
# HELP pgwicket_certificate_not_after_timestamp_seconds End of validity of a server certificate.
# TYPE pgwicket_certificate_not_after_timestamp_seconds gauge
pgwicket_certificate_not_after_timestamp_seconds{file="rsa.crt"} 1.798862645678e+09
pgwicket_certificate_not_after_timestamp_seconds{file="server.crt"} 1.798862645678e+09
# HELP pgwicket_certificate_not_before_timestamp_seconds Start of validity of a server certificate.
# TYPE pgwicket_certificate_not_before_timestamp_seconds gauge
pgwicket_certificate_not_before_timestamp_seconds{file="rsa.crt"} 1.798855445678e+09
pgwicket_certificate_not_before_timestamp_seconds{file="server.crt"} 1.798855445678e+09
# HELP pgwicket_client_received_bytes_total Bytes of sessions received from clients, after decryption.
# TYPE pgwicket_client_received_bytes_total counter
pgwicket_client_received_bytes_total 10
# HELP pgwicket_client_sent_bytes_total Bytes of sessions sent to clients, before encryption.
# TYPE pgwicket_client_sent_bytes_total counter
pgwicket_client_sent_bytes_total 2000
# HELP pgwicket_config_last_reload_success_timestamp_seconds When the configuration in force was loaded.
# TYPE pgwicket_config_last_reload_success_timestamp_seconds gauge
pgwicket_config_last_reload_success_timestamp_seconds 1.798859045678e+09
# HELP pgwicket_config_last_reload_successful Whether the last load of the configuration worked (1) or the one before stays in force (0).
# TYPE pgwicket_config_last_reload_successful gauge
pgwicket_config_last_reload_successful 0
# HELP pgwicket_config_reloads_total Loads of the configuration, the first included, by result.
# TYPE pgwicket_config_reloads_total counter
pgwicket_config_reloads_total{result="failure"} 2
pgwicket_config_reloads_total{result="success"} 1
# HELP pgwicket_connections_accepted_total Connections accepted, by listener.
# TYPE pgwicket_connections_accepted_total counter
pgwicket_connections_accepted_total{listener="127.0.0.1:5432"} 6
# HELP pgwicket_connections_refused_total Connections that were not let in, by outcome.
# TYPE pgwicket_connections_refused_total counter
pgwicket_connections_refused_total{outcome="certificate_revoked"} 1
pgwicket_connections_refused_total{outcome="probe"} 1
# HELP pgwicket_connections_starting Connections in their start-up, between accept and session.
# TYPE pgwicket_connections_starting gauge
pgwicket_connections_starting 1
# HELP pgwicket_crl_entries Revoked certificates in a revocation list.
# TYPE pgwicket_crl_entries gauge
pgwicket_crl_entries{file="ca.crl",issuer="CN=root"} 7
pgwicket_crl_entries{file="old.crl",issuer="CN=old"} 0
# HELP pgwicket_crl_load_failures_total Loads of the configuration that failed over revocation lists; those before stay in force.
# TYPE pgwicket_crl_load_failures_total counter
pgwicket_crl_load_failures_total 1
# HELP pgwicket_crl_next_update_timestamp_seconds When a revocation list goes stale; +Inf if it never does.
# TYPE pgwicket_crl_next_update_timestamp_seconds gauge
pgwicket_crl_next_update_timestamp_seconds{file="ca.crl",issuer="CN=root"} 1.798862645678e+09
pgwicket_crl_next_update_timestamp_seconds{file="old.crl",issuer="CN=old"} +Inf
# HELP pgwicket_crl_number Number that the CA has given a revocation list; absent without one.
# TYPE pgwicket_crl_number gauge
pgwicket_crl_number{file="ca.crl",issuer="CN=root"} 4711
# HELP pgwicket_crl_this_update_timestamp_seconds When a revocation list was issued.
# TYPE pgwicket_crl_this_update_timestamp_seconds gauge
pgwicket_crl_this_update_timestamp_seconds{file="ca.crl",issuer="CN=root"} 1.798855445678e+09
pgwicket_crl_this_update_timestamp_seconds{file="old.crl",issuer="CN=old"} 1.798855445678e+09
# HELP pgwicket_log_lines_dropped_total Lines of the log that were not written because nobody read it, or because that failed.
# TYPE pgwicket_log_lines_dropped_total counter
pgwicket_log_lines_dropped_total 1
# HELP pgwicket_ocsp_next_update_timestamp_seconds When the OCSP response of a server certificate ends and is no longer stapled.
# TYPE pgwicket_ocsp_next_update_timestamp_seconds gauge
pgwicket_ocsp_next_update_timestamp_seconds{file="server.crt"} 1.798859105678e+09
# HELP pgwicket_recheck_duration_seconds Time that the last recheck took.
# TYPE pgwicket_recheck_duration_seconds gauge
pgwicket_recheck_duration_seconds 0.002
# HELP pgwicket_recheck_failing_sessions Live sessions that the last recheck would not have let in, whether it ended them or not.
# TYPE pgwicket_recheck_failing_sessions gauge
pgwicket_recheck_failing_sessions 3
# HELP pgwicket_rechecks_total Rounds in which the live sessions were judged again.
# TYPE pgwicket_rechecks_total counter
pgwicket_rechecks_total 1
# HELP pgwicket_sessions_ended_total Sessions that have ended, by outcome.
# TYPE pgwicket_sessions_ended_total counter
pgwicket_sessions_ended_total{outcome="client_closed"} 1
# HELP pgwicket_sessions_open Sessions being relayed.
# TYPE pgwicket_sessions_open gauge
pgwicket_sessions_open 1
# HELP pgwicket_tls_handshake_duration_seconds Time of finished TLS handshakes, the client's share included.
# TYPE pgwicket_tls_handshake_duration_seconds histogram
pgwicket_tls_handshake_duration_seconds_bucket{le="0.0002"} 0
pgwicket_tls_handshake_duration_seconds_bucket{le="0.0005"} 0
pgwicket_tls_handshake_duration_seconds_bucket{le="0.001"} 0
pgwicket_tls_handshake_duration_seconds_bucket{le="0.0025"} 0
pgwicket_tls_handshake_duration_seconds_bucket{le="0.005"} 1
pgwicket_tls_handshake_duration_seconds_bucket{le="0.01"} 1
pgwicket_tls_handshake_duration_seconds_bucket{le="0.025"} 1
pgwicket_tls_handshake_duration_seconds_bucket{le="0.05"} 1
pgwicket_tls_handshake_duration_seconds_bucket{le="0.1"} 1
pgwicket_tls_handshake_duration_seconds_bucket{le="0.25"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="0.5"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="1"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="2.5"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="5"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="10"} 2
pgwicket_tls_handshake_duration_seconds_bucket{le="+Inf"} 2
pgwicket_tls_handshake_duration_seconds_sum 0.253
pgwicket_tls_handshake_duration_seconds_count 2
# HELP pgwicket_tls_handshake_failures_total Clients refused for their TLS or their certificate, by reason.
# TYPE pgwicket_tls_handshake_failures_total counter
pgwicket_tls_handshake_failures_total{reason="certificate_revoked"} 1
# HELP pgwicket_tls_handshakes_total Finished TLS handshakes.
# TYPE pgwicket_tls_handshakes_total counter
pgwicket_tls_handshakes_total{cipher="TLS_AES_256_GCM_SHA384",group="X25519MLKEM768",version="TLS 1.3"} 1
pgwicket_tls_handshakes_total{cipher="TLS_RSA_WITH_AES_128_CBC_SHA",group="none",version="TLS 1.2"} 1
`
