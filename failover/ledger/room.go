package ledger

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"hapair/failover/ledger/logstore"
)

// roomEvery is how often it is looked whether there is room again for what was used up,
// and gone when there is not.
const roomEvery = time.Minute

// keepRoom has the directory keep the room that this node needs to go alone, or to
// rejoin, while the filesystem is full; and tells when there is none to keep.
func (l *Ledger) keepRoom() {
	full := false
	for {
		err := errors.Join(l.store.KeepRoom(), l.snaps.KeepRoom())
		was := full
		full = errors.Is(err, logstore.ErrNoRoom)
		switch {
		case full && !was:
			l.log.Warn("ledger directory is full: should its reserve be used up, this node neither goes alone nor rejoins", zap.String("directory", l.cfg.Dir), zap.Error(err))
		case was && !full:
			l.log.Info("ledger directory has room again", zap.String("directory", l.cfg.Dir))
		}
		select {
		case <-time.After(roomEvery):
		case <-l.ctx.Done():
			return
		}
	}
}
