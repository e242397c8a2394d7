// Package record is a small service that writes numbered records to a file and
// answers each when it is on stable storage, and a client that keeps count of
// what was answered. Between them they show whether a pair loses anything.
//
// The protocol is lines of text. "put N" is answered "ok N" after the record
// is in the file and the file is synced; "list" is answered with the numbers
// in the file, one a line, and "end".
package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// DefaultPort is where the service listens.
const DefaultPort = 7000

const lineBytesMax = 256

// Server appends records to one file.
type Server struct {
	file *os.File
	mu   sync.Mutex // one record at a time goes to the file
}

// Open opens the file, and makes it when there is none. A last line that was
// torn by a crash was never answered: it is cut off.
func Open(name string) (*Server, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	_, good, err := scan(f)
	if err == nil {
		err = f.Truncate(good)
	}
	if err == nil {
		_, err = f.Seek(good, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("records %s: %w", name, err), f.Close())
	}
	return &Server{file: f}, nil
}

// Close closes the file.
func (s *Server) Close() error { return s.file.Close() }

// Serve answers connections until ctx ends, and then ends them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() }) //nolint:errcheck // nothing is owed on it
	defer stop()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("records: %w", err)
		}
		all.Add(1)
		go func() { // ends with its connection, or with ctx
			defer all.Done()
			stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // nothing is owed on it
			defer stop()
			defer c.Close() //nolint:errcheck // nothing is owed on it
			if err := s.converse(c); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "records:", err)
			}
		}()
	}
}

func (s *Server) converse(c net.Conn) error {
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		answer, err := s.handle(lines.Text())
		if err != nil {
			return err // unanswered: the client asks elsewhere
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *Server) handle(line string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if line == "list" {
		numbers, _, err := scan(s.file)
		out := new(strings.Builder)
		for _, n := range numbers {
			fmt.Fprintln(out, n)
		}
		out.WriteString("end\n")
		if err == nil {
			_, err = s.file.Seek(0, io.SeekEnd)
		}
		return out.String(), err
	}
	text, ok := strings.CutPrefix(line, "put ")
	n, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil {
		return "", fmt.Errorf("%q is neither put N nor list", line)
	}
	if _, err := fmt.Fprintf(s.file, "%d\n", n); err != nil {
		return "", err
	}
	if err := syscall.Fdatasync(int(s.file.Fd())); err != nil {
		return "", fmt.Errorf("sync: %w", err)
	}
	return fmt.Sprintf("ok %d\n", n), nil
}

// scan reads the file from its start: the numbers, and the length of what is
// whole.
func scan(f *os.File) (numbers []uint64, good int64, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return numbers, good, nil
		}
		if err != nil {
			return nil, 0, err
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(line, "\n"), 10, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("at byte %d: %q is no record: the file is damaged", good, line)
		}
		numbers, good = append(numbers, n), good+int64(len(line))
	}
}
