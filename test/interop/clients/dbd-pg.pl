#!/usr/bin/perl
# DBD::Pg as a client. Its libpq is the one that the loader finds.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);

$| = 1;
my %base = (
	host => $ENV{INTEROP_HOST}, port => $ENV{INTEROP_PORT}, dbname => 'postgres', user => 'app', password => $ENV{INTEROP_PASSWORD},
	sslmode => 'require', sslrootcert => $ENV{INTEROP_CA}, sslcert => 'none', sslkey => 'none', gssencmode => 'disable', connect_timeout => 90,
);

# Words of libpq, with the quotes that its connection strings have.
sub open_with {
	my %c = (%base, @_);
	my ($user, $word) = (delete $c{user}, delete $c{password});
	my $dsn = join ';', map { (my $v = $c{$_}) =~ s/([\\'])/\\$1/g; "$_='$v'" } sort keys %c;
	return DBI->connect("dbi:Pg:$dsn", $user, $word, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
}

sub one { my ($c, $sql, @values) = @_; return scalar $c->selectrow_array($sql, undef, @values) }
sub lacks { my ($why) = @_; return sub { die { lacks => $why } } }

sub with {
	my ($use, @more) = @_;
	return sub {
		my $c = open_with(@more);
		my $seen = $use->($c);
		$c->disconnect;
		return $seen;
	};
}
sub ask { my ($sql, @more) = @_; return with(sub { one($_[0], $sql) }, @more) }
sub user { return ask('select current_user', @_) }

sub prepared {
	my $s = $_[0]->prepare('select ?::int', { pg_prepare_now => 1 });
	my @got;
	for my $n (0 .. 2) { $s->execute($n); push @got, $s->fetchrow_array }
	return "@got";
}

sub copy_in {
	my ($c) = @_;
	$c->do('create temp table t (n int8)');
	$c->do('copy t from stdin');
	$c->pg_putcopydata("$_\n") for 0 .. 49999;
	$c->pg_putcopyend;
	return one($c, q{select count(*) || ' ' || sum(n) from t});
}

sub copy_out {
	my ($c) = @_;
	my ($size, $row) = (0, '');
	$c->do('copy (select generate_series(1, 50000)) to stdout');
	$size += length $row while $c->pg_getcopydata($row) >= 0;
	return $size;
}

sub notified {
	my ($c) = @_;
	$c->do('listen ch');
	with(sub { $_[0]->do(q{notify ch, 'word'}) })->();
	for (1 .. 400) {
		if (my $n = $c->pg_notifies) { return "$n->[0] $n->[2]" }
		select undef, undef, undef, 0.05;
	}
	return 'nothing';
}

# By FunctionCall messages, as libpq's lo_ functions do.
sub large_object {
	my ($c) = @_;
	$c->begin_work;
	my $id = $c->pg_lo_creat($c->{pg_INV_WRITE} | $c->{pg_INV_READ});
	my $fd = $c->pg_lo_open($id, $c->{pg_INV_WRITE} | $c->{pg_INV_READ});
	$c->pg_lo_write($fd, 'x' x 3000000, 3000000);
	$c->pg_lo_lseek($fd, 0, 0);
	my $n = $c->pg_lo_read($fd, my $got, 4000000);
	$c->pg_lo_close($fd);
	$c->pg_lo_unlink($id);
	$c->commit;
	return $n;
}

sub large {
	my ($c) = @_;
	my $got = one($c, 'select repeat(?, ?)', 'x', $ENV{INTEROP_SIZE});
	return length($got) . ' down, ' . one($c, 'select length(?::text)', $got) . ' up';
}

sub cancelled {
	my ($c) = @_;
	$c->do('select pg_sleep(120)', { pg_async => PG_ASYNC });
	my $other = open_with();
	for (1 .. 400) {
		# A request that comes before the query cancels nothing.
		last if one($other, q{select count(*) from pg_stat_activity where pid = ? and wait_event = 'PgSleep'}, $c->{pg_pid});
		select undef, undef, undef, 0.05;
	}
	$other->disconnect;
	my $done = $c->pg_cancel;
	return $done ? 'cancelled' : 'not cancelled: ' . $c->state;
}

sub failing {
	my ($c) = @_;
	eval { one($c, 'select 1/0') };
	return $c->state . ' ' . $c->errstr;
}

sub noticed {
	my ($c) = @_;
	my @got;
	local $SIG{__WARN__} = sub { push @got, @_ };
	$c->{PrintWarn} = 1;
	$c->do(q{do $$ begin raise notice 'word' using detail = 'more'; end $$});
	return "@got";
}

my %features = (
	'sslrequest' => user(), 'direct' => user(sslnegotiation => 'direct'), 'gssencmode' => user(gssencmode => 'prefer'),
	'scram' => user(), 'channel-binding' => user(channel_binding => 'require'), 'md5' => user(user => 'md5_user'),
	'clear' => user(user => 'clear_user'),
	'cert' => user(user => 'cert_user', password => '', sslcert => $ENV{INTEROP_CERT}, sslkey => $ENV{INTEROP_KEY}),
	'simple' => with(sub { $_[0]->{pg_server_prepare} = 0; one($_[0], 'select 7') }),
	'extended' => with(sub { one($_[0], 'select ?::text', '7') }),
	'prepared' => with(\&prepared), 'pipeline' => lacks('DBD::Pg sends one query at a time'),
	'copy-in' => with(\&copy_in), 'copy-out' => with(\&copy_out), 'notify' => with(\&notified), 'lo' => with(\&large_object),
	'large' => with(\&large), 'cancel' => with(\&cancelled),
	'protocol-3.0' => user(min_protocol_version => '3.0', max_protocol_version => '3.0'),
	'protocol-3.2' => user(min_protocol_version => '3.2'), 'protocol-latest' => user(max_protocol_version => 'latest'),
	'error' => with(\&failing), 'notice' => with(\&noticed),
	'idle' => with(sub { sleep $ENV{INTEROP_IDLE}; one($_[0], 'select current_user') }),
	'options' => ask('show statement_timeout', options => '-c statement_timeout=7min'),
	'application-name' => ask(q{select length(current_setting('application_name')) || ' bytes of 70'}, application_name => 'n' x 70),
	'client-encoding' => ask('show client_encoding', client_encoding => 'latin1'),
	'search-path' => ask('show search_path', options => '-csearch_path=interop,\\ public'),
	map { ("sslmode-$_" => user(sslmode => $_)) } qw(disable allow prefer require verify-ca verify-full),
);

# moments obeys the commands that come on standard input, a line each, and answers each
# with a line: ok or error, the SQLSTATE and the text.
sub moments {
	my $session;
	my $open = sub {
		my @pair = $_[0] eq 'cert_user' ? (password => '', sslcert => $ENV{INTEROP_CERT}, sslkey => $ENV{INTEROP_KEY}) : ();
		return open_with(user => $_[0], sslmode => 'verify-full', @pair);
	};
	my $close = sub { eval { $session->disconnect } if $session; $session = undef; return };
	my %commands = (
		'open' => sub { $close->(); $session = $open->(@_); return },
		'try' => sub { my $c = $open->(@_); my $seen = one($c, q{select 'in'}); $c->disconnect; return $seen },
		'ask' => sub { one($session, q{select 'in'}) },
		'sleep' => sub { $session->do(q{select 'slept' from pg_sleep(120)}, { pg_async => PG_ASYNC }); return },
		'cancel' => sub { return $session->pg_cancel ? die({ state => '57014', text => $session->errstr // 'cancelled' }) : 'it was not cancelled' },
		'close' => $close,
	);
	while (my $line = <STDIN>) {
		my ($name, @user) = split ' ', $line;
		my $seen = eval { $commands{$name}->(@user) };
		my $e = $@;
		if ($e) {
			my $state = ref $e ? $e->{state} : ($DBI::state // '');
			my $text = ref $e ? $e->{text} : $e =~ s/ at \S+ line \d+.*\n//r =~ s/.*failed: //sr =~ s/port \d+ ?//r;
			print "error\t$state\t", $text =~ s/\s+/ /gr, "\n";
		} else {
			print "ok\t\t", $seen // '', "\n";
		}
	}
	exit 0;
}
moments() if "@ARGV" eq 'moments';

my $version = do { my $c = DBD::Pg->VERSION; "DBD::Pg $c, DBI $DBI::VERSION, Perl $^V" };
print "version\t$version\n";
for my $name (@ARGV) {
	my $seen = eval { $features{$name}->() };
	my ($state, $e) = ('ok', $@);
	if (ref $e) {
		($state, $seen) = ('unsupported', $e->{lacks});
	} elsif ($e =~ /invalid connection option|invalid gssencmode value|protocol_version value/) {
		($state, $seen) = ('unsupported', 'this libpq does not have it');
	} elsif ($e) {
		# Ports differ between the two ways.
		($state, $seen) = ('error', $e =~ s/ at \S+ line \d+\.?\n//r =~ s/.*failed: //sr =~ s/port \d+ ?//r);
	}
	print "$name\t$state\t", ($seen // '') =~ s/\s+/ /gr =~ s/ $//r, "\n";
}
