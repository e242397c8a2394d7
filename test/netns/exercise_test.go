package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const exercised = "/srv/pg/exercised"

// A file is written, cut, punched, allocated, zeroed, read and mapped, against a
// model of it in memory, until the power of the Primary is cut: the survivor has
// what was synced, and goes on from there.
func TestAppFile(t *testing.T) {
	needs(t, tool{"mkfs.xfs", "xfsprogs"}, tool{"e2fsck", "e2fsprogs"})
	for _, filesystem := range appFilesystems {
		t.Run(filesystem, func(t *testing.T) { exerciseFile(t, filesystem) })
	}
}

func exerciseFile(t *testing.T, filesystem string) {
	p := newApps(t, filesystem)
	self, err := os.Executable()
	p.must(err)
	kills, all := number(t, "HAPAIR_KILLS", killsShort), 0
	for round := range kills {
		args := []string{exerciserWord, "-file", exercised, "-start", filepath.Join(t.TempDir(), "start"), "-seed", fmt.Sprint(round + 1)}
		s, err := p.converse(p.primary(), append([]string{self}, args...)...)
		p.must(err)
		progress := make(chan [2]int, 1)
		go func() { progress <- follow(s, time.Now().Add(exerciseTime)) }() // ends with the time, or the exerciser
		reached := <-progress
		p.kill(func(survivor string) {
			last := s.rest(reached)
			all += last[1]
			look := append([]string{self}, append(args, "-look", "-synced", fmt.Sprint(last[0]), "-told", fmt.Sprint(last[1]))...)
			p.run(survivor, look...)
			p.say("%d changes, %d of them synced: the file is explained", last[1], last[0])
			p.spoil(survivor)
			if _, err := p.Run(p.ctx, survivor, look...); err == nil {
				t.Error("a file with other bytes in it is explained too")
			}
			p.run(survivor, "sh", "-c", "cp /run/whole "+exercised+" && rm /run/whole && sync -f "+exercised)
		})
	}
	p.say("%s on %s: %d kills, %d changes", t.Name(), filesystem, kills, all)
	p.sound(filesystem)
}

// exerciseTime is how long a file is changed before the power goes.
const exerciseTime = 2 * time.Second

// follow reads what an exerciser tells until an instant: what is synced, and
// what may have been done.
func follow(s *session, until time.Time) (reached [2]int) {
	for {
		text, err := s.line(time.Until(until))
		if err != nil {
			return reached
		}
		note(text, &reached)
	}
}

// rest reads what a dead exerciser had told besides.
func (s *session) rest(reached [2]int) [2]int {
	defer s.end()
	for {
		text, err := s.line(patience)
		if err != nil {
			return reached
		}
		note(text, &reached)
	}
}

func note(text string, reached *[2]int) {
	for i, word := range []string{"synced ", "told "} {
		if rest, ok := strings.CutPrefix(text, word); ok {
			if _, err := fmt.Sscan(rest, &reached[i]); err != nil {
				panic(errors.Join(fmt.Errorf("an exerciser says %q", text), err)) // it is this program
			}
		}
	}
}

// spoil puts bytes into the file that no change puts there: of every sector the
// first two differ.
func (p *pair) spoil(node string) {
	p.t.Helper()
	p.run(node, "sh", "-c", "cp "+exercised+" /run/whole && yes | dd of="+exercised+" bs=512 count=4 iflag=fullblock conv=notrunc,fsync status=none")
}
