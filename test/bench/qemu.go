package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
)

// system is one thing that is measured.
type system interface {
	name() string
	// start brings it up; uri is where fio connects. On an error stop is still
	// called.
	start(ctx context.Context) (uri string, err error)
	// healthy reports why a figure taken now would be of something else.
	healthy(ctx context.Context) error
	servers() []*process
	// copies are the files that must be alike in the end.
	copies() []string
	stop() error
}

// qemu is what qemu-storage-daemon can do: one copy, or a mirror of two.
type qemu struct {
	what   string
	dir    string
	mirror bool
	near   box // with the client
	far    box
	images []string
	procs  []*process
}

func (q *qemu) name() string        { return q.what }
func (q *qemu) servers() []*process { return q.procs }
func (q *qemu) copies() []string    { return q.images }
func (q *qemu) stop() error         { return stopAll(q.procs) }

func (q *qemu) healthy(context.Context) error {
	for _, p := range q.procs {
		if !p.alive() {
			return fmt.Errorf("%s ended: %s", p.name, p.lastWords())
		}
	}
	return nil
}

func (q *qemu) start(ctx context.Context) (string, error) {
	socket := filepath.Join(q.dir, "first.sock")
	if !q.mirror {
		return nbdURI(socket), q.serve(ctx, q.near, "first", socket, "disk", fileNode(q.images[0]))
	}
	second := filepath.Join(q.dir, "second.sock")
	if err := q.serve(ctx, q.far, "second", second, "disk", fileNode(q.images[1])); err != nil {
		return "", err
	}
	remote := map[string]any{"driver": "nbd", "node-name": "remote", "export": "disk", "server": map[string]any{"type": "unix", "path": second}}
	// fifo: reads are served by the first child, as hapair serves them from its
	// own disk; a write must succeed on both.
	both := map[string]any{"driver": "quorum", "node-name": "both", "vote-threshold": 2, "read-pattern": "fifo", "children": []string{"disk", "remote"}}
	return nbdURI(socket), q.serve(ctx, q.near, "first", socket, "both", fileNode(q.images[0]), remote, both)
}

func fileNode(image string) map[string]any {
	return map[string]any{"driver": "file", "node-name": "disk", "filename": image, "aio": "io_uring", "cache": map[string]any{"direct": true}}
}

// serve starts one daemon that exports a node of its graph as "disk".
func (q *qemu) serve(ctx context.Context, b box, name, socket, node string, graph ...map[string]any) error {
	var args []string
	for _, g := range graph {
		text, err := json.Marshal(g)
		if err != nil {
			return err
		}
		args = append(args, "--blockdev", string(text))
	}
	args = append(args, "--nbd-server", "addr.type=unix,addr.path="+socket,
		"--export", "type=nbd,id=export,name=disk,writable=on,node-name="+node)
	p, err := start(b, q.dir, q.what+"-"+name, "qemu-storage-daemon", args...)
	if err != nil {
		return err
	}
	q.procs = append(q.procs, p)
	return await(ctx, "start "+p.name, q.procs, func() error { return listens(socket) })
}

func nbdURI(socket string) string { return "nbd+unix:///disk?socket=" + url.QueryEscape(socket) }
