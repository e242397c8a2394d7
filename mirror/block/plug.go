package block

// Plugging, as in the Linux block layer: requests that come in a row are
// started together, and answers that come in a row are delivered together. On
// either side of a door one system call then serves many requests.

// Unplugger is a Handler or Disk that honours Request.Plugged.
type Unplugger interface {
	// Unplug starts everything that was kept back. It may be called from any
	// goroutine and does not wait for the requests.
	Unplug()
}

// Submitter is told that a series of its requests has been answered. Until
// then it may keep back what the Dones led to.
type Submitter interface {
	// Answered runs on the goroutine of the Dones, after them. It must not
	// block, and may come without a Done before it.
	Answered()
}

// Answer ends a request: Done, and then its submitter's Answered.
func (r *Request) Answer(err error) {
	by := r.By // r is the submitter's again once Done has run
	r.Done(r, err)
	if by != nil {
		by.Answered()
	}
}

// answersMax bounds the submitters an Answers remembers: the connections and
// resources that share one disk or one burst. With more, some are told early.
const answersMax = 8

// Answers ends requests in a row and tells each submitter once. The zero
// Answers is ready; it belongs to one goroutine, or to who holds its lock.
type Answers struct {
	by [answersMax]Submitter
	n  int
}

// Done ends a request; Flush tells its submitter.
func (a *Answers) Done(r *Request, err error) {
	by := r.By
	r.Done(r, err)
	a.Add(by)
}

// Add remembers a submitter whose request was ended; nil is none.
func (a *Answers) Add(by Submitter) {
	if by == nil {
		return
	}
	for _, known := range a.by[:a.n] {
		if known == by {
			return
		}
	}
	if a.n == answersMax {
		a.Flush()
	}
	a.by[a.n] = by
	a.n++
}

// Flush tells every submitter.
func (a *Answers) Flush() {
	for i := range a.n {
		by := a.by[i]
		a.by[i] = nil
		by.Answered()
	}
	a.n = 0
}
