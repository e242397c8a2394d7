package fuse

// TakeTurn keeps every method from its work, until its result is called.
func (f *Fuse) TakeTurn() (release func()) {
	f.acquire()
	return f.release
}
