package netns

import (
	"fmt"
	"strings"
	"testing"
)

const sqliteFile = "/srv/pg/app.sqlite"

// SQLite with a write-ahead log and full syncs: what was committed before the
// power went is in the file of the survivor, and the file is in order.
func TestAppSQLite(t *testing.T) {
	needs(t, tool{"sqlite3", "sqlite3"}, tool{"mkfs.xfs", "xfsprogs"}, tool{"e2fsck", "e2fsprogs"})
	for _, filesystem := range appFilesystems {
		t.Run(filesystem, func(t *testing.T) { sqlite(t, filesystem) })
	}
}

func sqlite(t *testing.T, filesystem string) {
	p := newApps(t, filesystem)
	primary := p.primary()
	p.run(primary, "sqlite3", sqliteFile, "PRAGMA journal_mode=WAL; CREATE TABLE committed (id INTEGER PRIMARY KEY, half INTEGER, pad BLOB); CREATE INDEX halves ON committed (half, id)")
	l := p.ledger()
	kills := number(t, "HAPAIR_KILLS", killsShort)
	for range kills {
		stop := l.clients(1, func() (*session, error) { return p.converse(p.primary(), "sqlite3", "-batch", "-bail", sqliteFile) }, sqliteText)
		l.progress(appProgress)
		p.kill(func(survivor string) {
			stop()
			l.sqliteHas(survivor)
		})
	}
	p.say("%s on %s: %d kills, %d transactions committed", t.Name(), filesystem, kills, len(l.all()))
	p.sound(filesystem)
}

func sqliteText(n uint64) string {
	begin := ""
	if n%64 == 1 {
		begin = "PRAGMA wal_checkpoint(TRUNCATE);\n"
	}
	return fmt.Sprintf(".output /dev/null\nPRAGMA synchronous=FULL;\n%s.output stdout\n", begin) +
		fmt.Sprintf("BEGIN; INSERT INTO committed VALUES (%[1]d, 1, randomblob(700)); INSERT INTO committed VALUES (-%[1]d, 2, NULL); COMMIT;\n.print done %[1]d\n", n)
}

func (l *ledger) sqliteHas(node string) {
	l.p.t.Helper()
	ask := func(text string) string { return strings.TrimSpace(l.p.run(node, "sqlite3", sqliteFile, text)) }
	l.look(l.all(), ask("SELECT id FROM committed WHERE half = 1"))
	if got := ask("SELECT count(*) FROM committed a WHERE NOT EXISTS (SELECT 1 FROM committed b WHERE b.id = -a.id)"); got != "0" {
		l.p.t.Errorf("%s transactions are there by half", got)
	}
	if got := ask("PRAGMA integrity_check"); got != "ok" {
		l.p.t.Errorf("the file is not in order: %s", got)
	}
}
