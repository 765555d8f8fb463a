"""Everyday things and stuff, one class per line as [`read_class_lines`] takes them: a module rather than a text file,
since the Hub's remote code brings modules alone."""

EVERYDAY_CLASSES = """
person, man, woman, child
dog
cat
bird
horse
cow
sheep
car
truck
bus
train
bicycle
motorcycle
boat
airplane
traffic light
street sign
bench
chair
couch, sofa
bed
table, desk
lamp
television, screen
laptop, computer
cell phone, telephone
book
clock
picture, painting, poster
bottle
cup, mug
plate, dish
bowl
knife
fork
spoon
fruit
bread
cake
bag, backpack
umbrella
hat
shoe
shirt, jacket
box
toy
ball
flower
window
door
curtain [stuff]
tree [stuff]
plant
sky [stuff]
cloud [stuff]
grass, lawn [stuff]
ground, soil, dirt [stuff]
sand [stuff]
rock, stone [stuff]
snow [stuff]
mountain, hill [stuff]
water, sea, river [stuff]
road, street [stuff]
pavement, sidewalk [stuff]
building, house [stuff]
wall [stuff]
floor [stuff]
ceiling [stuff]
fence [stuff]
carpet, rug [stuff]
wood [stuff]
"""
