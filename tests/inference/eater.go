// What eater.c does, in a runtime that makes its own system calls.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

var kept [][]byte

// Maps until that is refused, and keeps it.
func fill() error {
	for {
		block, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			return err
		}
		for i := range block {
			block[i] = 1
		}
		kept = append(kept, block)
	}
}

// The same in a thread of its own, which stays.
func fillElsewhere() chan error {
	refused := make(chan error)
	go func() {
		runtime.LockOSThread()
		refused <- fill()
		select {}
	}()
	return refused
}

func main() {
	switch os.Args[1] {
	case "checked":
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = 1
			}
			kept = append(kept, block)
		}
	case "goroutines":
		// Its last words are about each of them.
		block := make([]byte, 150<<20)
		for i := range block {
			block[i] = 1
		}
		kept = append(kept, block)
		for {
			go func() { select {} }()
		}
	case "threads":
		done := make(chan int)
		for i := 0; i < 64; i++ {
			go func(i int) { done <- len(make([]byte, 1<<20+i)) }(i)
		}
		for i := 0; i < 64; i++ {
			<-done
		}
	case "tell of it, and unlock what is not locked":
		fmt.Fprintln(os.Stderr, "cache off:", fill())
		var lock sync.Mutex
		lock.Unlock()
	case "tell of another's end, and fail":
		fmt.Fprintln(os.Stderr, "worker 7: fatal error:", fill())
		fmt.Fprintln(os.Stderr, "worker 7: runtime.throw({0x46d3e1, 0x16})")
		for len(kept) > 0 {
			syscall.Munmap(kept[0])
			kept = kept[1:]
		}
		if file, err := os.Open("/etc/passwd"); err == nil {
			file.Read(make([]byte, 64))
		}
		work()
	case "another sleeps, tells of a worker, and fails":
		<-fillElsewhere()
		time.Sleep(1500 * time.Millisecond)
		fmt.Fprintln(os.Stderr, "worker 7: out of memory")
		os.Exit(3)
	case "another is told, and fails":
		fmt.Fprintln(os.Stderr, "fill:", <-fillElsewhere())
		os.Exit(3)
	case "fail":
		os.Exit(3)
	}
}

// More than who dies of a refusal does after its words.
func work() {
	sum := 0
	for i := 0; i < 1<<30; i++ {
		sum += i & len(kept)
	}
	os.Exit(3 + sum)
}
