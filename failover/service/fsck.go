package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"hapair/kernel/program"
)

// FsckError is returned when a filesystem needs hands before it is mounted.
type FsckError struct {
	Device string
	Code   int    // exit code of the checker
	Output string // the end of what it printed
}

// Error says what the checker's exit code means and what to do.
func (e *FsckError) Error() string {
	return fmt.Sprintf("check of %s failed (exit code %d: %s); run \"e2fsck -f %s\" by hand on this node: %s",
		e.Device, e.Code, fsckMeaning(e.Code), e.Device, e.Output)
}

// The bits of fsck's exit code (fsck(8)).
const (
	fsckCorrected   = 1
	fsckReboot      = 2 // only for a mounted root filesystem
	fsckUncorrected = 4
	fsckOperational = 8
	fsckUsage       = 16
	fsckCanceled    = 32
	fsckLibrary     = 128
)

func fsckMeaning(code int) string {
	words := []struct {
		bit  int
		text string
	}{
		{fsckCorrected, "errors corrected"}, {fsckReboot, "reboot wanted"},
		{fsckUncorrected, "errors left uncorrected"}, {fsckOperational, "operational error"},
		{fsckUsage, "usage error"}, {fsckCanceled, "canceled"}, {fsckLibrary, "shared library error"},
	}
	var all []string
	for _, w := range words {
		if code&w.bit != 0 {
			all = append(all, w.text)
		}
	}
	if len(all) == 0 {
		return "clean"
	}
	return strings.Join(all, ", ")
}

// fsckPasses reports whether the filesystem may be mounted.
func fsckPasses(code int) bool { return code&^(fsckCorrected|fsckReboot) == 0 && code >= 0 }

// fsck makes an ext filesystem fit to be mounted: it replays the journal and
// mends what can be mended without asking. Others replay their log when they
// are mounted. The device must not be mounted.
func fsck(ctx context.Context, device, kind string, log *zap.Logger) error {
	if !strings.HasPrefix(kind, "ext") {
		return nil
	}
	tool, err := exec.LookPath("e2fsck")
	if err != nil {
		if kind == "ext2" {
			return permanent{fmt.Errorf("check %s: e2fsck is not installed, and ext2 has no journal: %w", device, err)}
		}
		log.Warn("e2fsck is not installed: mounting on the strength of the journal alone", zap.String("device", device))
		return nil
	}
	cmd := exec.CommandContext(ctx, tool, "-p", device)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it stops where it is safe to
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("check %s: %w", device, context.Cause(ctx))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("check %s: %w", device, err)
	}
	code := cmd.ProcessState.ExitCode()
	text := program.Tail(out, 1000)
	if !fsckPasses(code) {
		return &FsckError{Device: device, Code: code, Output: text}
	}
	log.Info("filesystem checked", zap.String("device", device), zap.String("result", fsckMeaning(code)), zap.String("output", text))
	return nil
}

// head returns the first n bytes of b as text on one line.
func head(b []byte, n int) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "") + " …"
	}
	return text
}
