package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hapair/test/lab"
)

// pgScript is PostgreSQL as a service: its data are on the mirrored file
// system, it runs as the user postgres, and its shared memory ends with the node.
const pgScript = `#!/bin/sh
bin=%[1]s data=/srv/pg/data
as() { cd / && runuser -u postgres -- "$@"; }
case $1 in
start)
	mkdir -p /run/pg && chown postgres /run/pg || exit 1
	if [ ! -e $data/complete ]; then
		rm -rf $data && install -d -o postgres -m 0700 $data || exit 1
		as $bin/initdb -D $data -E UTF8 --locale=C.UTF-8 -A trust --data-checksums --wal-segsize=4 || exit 1
		cat >>$data/postgresql.conf <<-END
			listen_addresses = '*'
			unix_socket_directories = '/run/pg'
			dynamic_shared_memory_type = sysv
			shared_buffers = 32MB
			min_wal_size = 16MB
			max_wal_size = 48MB
			checkpoint_timeout = 30s
			log_destination = stderr
		END
		echo "host all all 192.168.1.0/24 trust" >>$data/pg_hba.conf
		touch $data/complete && sync -f $data || exit 1
	fi
	as $bin/pg_ctl -D $data status >/dev/null && exit 0
	rm -f $data/postmaster.pid # of a machine that is gone: its number may be somebody else's here
	as $bin/pg_ctl -D $data -w -t 60 -l $data/server.log start ;;
stop)
	as $bin/pg_ctl -D $data status >/dev/null || exit 0
	as $bin/pg_ctl -D $data -w -t 30 -m fast stop ;;
status)
	as $bin/pg_ctl -D $data status >/dev/null || exit 3 ;;
esac
`

const pgClients = 3

// PostgreSQL under pgbench and clients that count what was committed: each time
// the Primary loses its power, every committed transaction is there, whole, and
// no index lacks a row.
func TestAppPostgres(t *testing.T) {
	needs(t, tool{"postgres", "postgresql"}, tool{"pgbench", "postgresql-contrib"}, tool{"pg_amcheck", "postgresql"},
		tool{"psql", "postgresql-client"}, tool{"runuser", "util-linux"}, tool{"mkfs.xfs", "xfsprogs"}, tool{"e2fsck", "e2fsprogs"})
	for _, filesystem := range appFilesystems {
		t.Run(filesystem, func(t *testing.T) { postgres(t, filesystem) })
	}
}

func postgres(t *testing.T, filesystem string) {
	script := filepath.Join(t.TempDir(), "postgres")
	if err := os.WriteFile(script, fmt.Appendf(nil, pgScript, filepath.Dir(program("postgres"))), 0o700); err != nil {
		t.Fatal(err)
	}
	p := newApps(t, filesystem, fmt.Sprintf("{name: postgres, exec: {start: [%[1]s, start], stop: [%[1]s, stop], status: [%[1]s, status]}}", script),
		"address: {ip: "+lab.ServiceAddress+"/24, dev: eth0}")
	p.sql("CREATE TABLE committed (id bigint PRIMARY KEY, half int); CREATE EXTENSION amcheck")
	p.run(lab.Client, pg("pgbench", "-i", "-q", "-s", "1", "postgres")...)
	l := p.ledger()
	stop := l.clients(pgClients, func() (*session, error) {
		return p.converse(lab.Client, pg("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "postgres")...)
	}, func(n uint64) string {
		return fmt.Sprintf("BEGIN; INSERT INTO committed VALUES (%[1]d, 1); INSERT INTO committed VALUES (-%[1]d, 2); COMMIT;\n\\echo done %[1]d\n", n)
	})
	idle := p.load(lab.Client, pg("pgbench", "-n", "-c", "2", "-T", "3600", "postgres")...)
	kills := number(t, "HAPAIR_KILLS", killsShort)
	for range kills {
		l.progress(appProgress)
		p.kill(func(string) { l.postgresHas(l.all()) })
	}
	l.progress(appProgress)
	stop()
	idle()
	l.postgresHas(l.all())
	p.say("%s on %s: %d kills, %d transactions committed", t.Name(), filesystem, kills, len(l.all()))
	p.sound(filesystem)
}

// pg is a command line of a client of the service.
func pg(name string, args ...string) []string {
	return append([]string{"env", "PGCONNECT_TIMEOUT=2", program(name), "-h", lab.ServiceAddress, "-U", "postgres"}, args...)
}

func (p *pair) sql(text string) string {
	p.t.Helper()
	return strings.TrimSpace(p.run(lab.Client, pg("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, "postgres")...))
}

// postgresHas looks for what was committed, for halves of transactions, for what
// pgbench keeps in balance, and for damaged tables and indexes.
func (l *ledger) postgresHas(committed []uint64) {
	l.p.t.Helper()
	l.look(committed, l.p.sql("SELECT id FROM committed WHERE half = 1"))
	if got := l.p.sql("SELECT count(*) FROM committed a WHERE NOT EXISTS (SELECT FROM committed b WHERE b.id = -a.id)"); got != "0" {
		l.p.t.Errorf("%s transactions are there by half", got)
	}
	sums := l.p.sql("SELECT count(DISTINCT s) FROM (SELECT sum(abalance) s FROM pgbench_accounts UNION ALL SELECT sum(tbalance) FROM pgbench_tellers" +
		" UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT coalesce(sum(delta), 0) FROM pgbench_history) x")
	if sums != "1" {
		l.p.t.Errorf("what pgbench keeps in balance adds up to %s different sums", sums)
	}
	if out, err := l.p.Run(l.p.ctx, lab.Client, pg("pg_amcheck", "--heapallindexed", "--parent-check", "postgres")...); err != nil {
		l.p.t.Errorf("pg_amcheck: %v: %s", err, out)
	}
}
