# Ways of a Ruby program to meet the end of its memory: eat.rb WAY [CODE].

def eat(bytes = 64 << 10)
  held = []
  loop { held << ("x" * bytes) }
end

def work
  table = {}
  4000.times { |i| table[(i % 100).to_s] = "y" * (16 << 10) }
  table.sum { |name, block| name.size + block.getbyte(0) }
end

$stdout.sync = true
puts "pid #{Process.pid}"
case ARGV[0]
when "strings" then eat
when "small"
  last = nil
  loop { last = [last, "a name that is too long to be embedded: #{last.object_id}"] }
when "thread"
  Thread.new { eat }.join
when "caught"
  begin
    eat
  rescue NoMemoryError => error
    warn "eat: #{error.message}"
    exit 1
  end
when "caught-silent"
  begin
    eat
  rescue NoMemoryError
    exit! 1
  end
when "recover"
  begin
    # Large ones: a refused small one leaves Ruby itself too little to go on with, guarded or not.
    eat 6 << 20
  rescue NoMemoryError
    GC.start
  end
  puts "recovered #{work}"
when "recover-silent"
  begin
    eat 6 << 20
  rescue NoMemoryError
  end
when "own"
  puts "own #{work}"
else
  exit 77
end
exit Integer(ARGV[1])
