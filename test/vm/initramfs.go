package vm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// modules are what a machine needs of its kernel; what they need in turn is found.
var modules = []string{"virtio_pci", "virtio_blk", "virtio_net", "ext4", "fuse", "loop"}

// archive is an initramfs: a cpio in the form "newc".
type archive struct {
	bytes.Buffer
	number int
}

func (a *archive) add(name string, mode uint32, data []byte) {
	a.number++
	_, _ = fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0) // a buffer takes all
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

// Modes of entries.
const (
	directory  = 0o40755
	executable = 0o100755
	plain      = 0o100600
	symlink    = 0o120777
)

// parents adds the folders of files that are named.
func (a *archive) parents(names []string) {
	seen := map[string]bool{".": true}
	var add func(dir string)
	add = func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			add(path.Dir(dir))
			a.add(dir, directory, nil)
		}
	}
	for _, n := range names {
		add(path.Dir(n))
	}
}

// moduleFiles finds the modules of a kernel and what they depend on, each after
// those it needs. What the kernel has built in is left out, what it does not have at
// all is an error.
func moduleFiles(dir string, more ...string) (names []string, err error) {
	all, err := modulesOf(dir)
	if err != nil {
		return nil, err
	}
	var need func(module string) error
	need = func(module string) error {
		file, ok := all[strings.ReplaceAll(module, "-", "_")]
		if !ok {
			return fmt.Errorf("the kernel has no module %s, as a file below %s or built in", module, dir)
		}
		if file == "" || slices.Contains(names, file) {
			return nil
		}
		depends, err := dependsOn(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, d := range depends {
			if err := need(d); err != nil {
				return err
			}
		}
		names = append(names, file)
		return nil
	}
	for _, m := range append(more, modules...) {
		if err := need(m); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// modulesOf finds the file of each module below a directory; "" where it is built in.
func modulesOf(dir string) (map[string]string, error) {
	all := map[string]string{}
	note := func(path, file string) {
		if base, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
			all[strings.ReplaceAll(base, "-", "_")] = file
		}
	}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Base(name) != "modules.builtin" {
			note(name, name)
			return err
		}
		builtin, err := os.ReadFile(name)
		for line := range strings.Lines(string(builtin)) {
			note(strings.TrimSpace(line), "")
		}
		return err
	})
	return all, err
}

// dependsOn reads what a module says that it needs.
func dependsOn(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	text, err := s.Data()
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(text), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// pack makes an initramfs of files on this machine, by their names in it, and of
// texts.
func pack(files map[string]string, texts map[string]string, links map[string]string) ([]byte, error) {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	for n := range texts {
		names = append(names, n)
	}
	for n := range links {
		names = append(names, n)
	}
	slices.Sort(names)
	a := new(archive)
	a.parents(append(names, "proc/x", "sys/x", "dev/x", "run/x", "srv/x", "tmp/x", "var/lib/hapair/x", "root/x"))
	for _, n := range names {
		switch {
		case links[n] != "":
			a.add(n, symlink, []byte(links[n]))
		case files[n] != "":
			data, err := os.ReadFile(files[n])
			if err != nil {
				return nil, err
			}
			a.add(n, executable, data)
		default:
			a.add(n, plain, []byte(texts[n]))
		}
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), nil
}
