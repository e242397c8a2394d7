package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"hapair/failover/ledger/logstore"
)

// setAside renames a directory whose contents are damaged; one that was set aside
// before is removed. The node goes on as one that lost it.
func setAside(dir string, why error, log *zap.Logger) error {
	aside := filepath.Clean(dir) + ".corrupt"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove what was set aside before: %w", err)
	}
	if err := os.Rename(dir, aside); err != nil {
		return fmt.Errorf("set the damaged ledger aside: %w", err)
	}
	log.Error("ledger set aside: this node begins with an empty one", zap.String("kept", aside), zap.Error(why))
	return nil
}

// openDir opens the store. One that is damaged counts as lost, for its votes and its
// log cannot be relied on; what other error there is, is the caller's.
func openDir(cfg *Config, log *zap.Logger) (*logstore.Store, *logstore.Snapshots, error) {
	store, snaps, err := openParts(cfg)
	if errors.Is(err, logstore.ErrCorrupt) {
		if err = setAside(cfg.Dir, err, log); err == nil {
			store, snaps, err = openParts(cfg)
		}
	}
	return store, snaps, err
}

func openParts(cfg *Config) (*logstore.Store, *logstore.Snapshots, error) {
	store, err := logstore.Open(cfg.Dir, cfg.store)
	if err != nil {
		return nil, nil, err
	}
	snaps, err := logstore.OpenSnapshots(cfg.Dir, cfg.store)
	if err == nil {
		err = noGap(cfg.Dir, store, snaps)
	}
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, snaps, nil
}

// noGap finds a log whose beginning was compacted into a snapshot that is not there.
func noGap(dir string, store *logstore.Store, snaps *logstore.Snapshots) error {
	first, err := store.FirstIndex()
	if err != nil || first <= 1 {
		return err
	}
	metas, err := snaps.List()
	if err == nil && (len(metas) == 0 || metas[0].Index+1 < first) {
		err = &logstore.CorruptError{Path: dir, What: fmt.Sprintf("the log begins at entry %d, and no snapshot has those before it", first)}
	}
	return err
}
