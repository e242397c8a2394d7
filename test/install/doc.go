// Package install holds the test of make install: what it puts where, that it is
// the same each time, and that make uninstall takes it away again. The test needs the
// programs in bin/ (make build).
package install
